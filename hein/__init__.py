"""Text encoders, the HEIN network and the vector stores: from the words of knowledge to prestored vectors."""
