"""`spanledger demo`: a small SaaS application, and a loopback server in place of its providers."""
