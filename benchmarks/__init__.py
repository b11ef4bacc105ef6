"""What an update costs, with gramkeep and with its peers; ``make bench`` runs it."""
