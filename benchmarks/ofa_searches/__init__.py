"""Searches of once-for-all networks under a latency limit: the published one, ours, and what tables certify."""
