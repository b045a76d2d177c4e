"""Long jobs: thousands of prompts from a file, drawn to files, continued after a kill.

    prompts_file   rows of a JSONL, CSV, Parquet or text file, in parts
    job            what a folder of images is of; which plan its images draft by
    part           the files of one part, and which of its images are there
    drawing        draws the rows that are missing, in slots
    run            all parts of a job, or of one shard of it

Knows files of prompts and images. Does not know Ray: `cluster` draws the same parts there.
"""
