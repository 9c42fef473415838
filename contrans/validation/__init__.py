"""Did it work? Arms, protocols, intervals."""
