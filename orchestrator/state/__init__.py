"""The state of one study: its runs, proposals, tuned arms and progress, as the ledger has them."""
