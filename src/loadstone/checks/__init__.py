"""Questions about files that change nothing: are they whole, and what differs between two of them."""
