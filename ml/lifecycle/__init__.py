"""What every use case shares: data set, training run, evaluation, gate, registry, write-back and report.

Nothing here knows a feature or a table of a particular use case; `ml/usecases` says what is asked, of whom and from what.
"""
