"""What everything else stands on: errors, configs, cards, contracts, pictures and weights on disk."""
