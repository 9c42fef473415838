"""Authored concept sets and corpora that ship with the package, and the script that samples the corpus."""
