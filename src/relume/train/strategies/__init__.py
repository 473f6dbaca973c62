"""Published ways of training, one a file: their card and what is theirs; `objectives` puts them to use."""
