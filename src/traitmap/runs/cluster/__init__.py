"""A run on many workers by Ray: who they are, what they are sent, and how their work is driven.

What travels between machines is packed by Ray's own serialisation, which is pickle; nothing that this package
writes to a disk is. Ray is imported only where a function needs it.
"""
