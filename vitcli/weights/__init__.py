"""Reading weight files of any origin, and putting them into a model without losing a tensor unnoticed."""
