"""What more than one machine costs: measured on this one (`measure`), and worked out for many (`__main__`)."""
