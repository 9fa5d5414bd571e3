"""The supervised Airflow of the house: environment, settings, processes, health."""
