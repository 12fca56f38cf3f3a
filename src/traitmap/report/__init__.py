"""Records -> one HTML file, figures and terminal tables; computes nothing statistical."""
