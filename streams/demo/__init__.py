"""The whole path in one command: start everything, train on the first part of a data set, stream the rest, say what happened."""
