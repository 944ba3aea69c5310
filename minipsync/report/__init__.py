"""Tables from records: averaged over seeds, compared, beside the numbers that papers print."""
