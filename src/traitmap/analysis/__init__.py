"""Arrays in, records out: latent traits of a transfer matrix, with their uncertainty and their null."""
