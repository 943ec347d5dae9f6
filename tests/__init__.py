"""The tests of simplepubsub, and the kit they stand on: conftest, helpers, faultproxy, peers."""
