"""Reads run folders and the answers of networks, and makes tables, charts and pages of them."""
