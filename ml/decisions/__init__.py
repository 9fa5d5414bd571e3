"""Rules that turn predictions into actions; nothing is fitted here."""
