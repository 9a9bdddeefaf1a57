"""What was spent and held: the journal of charges and the shared ledgers."""
