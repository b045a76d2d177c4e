"""Long jobs: thousands of prompts from a file, drawn to files, continued after a kill.

    prompts_file   rows of a JSONL, CSV, Parquet or text file
    prompt_row     what one row may ask for
    part           so many rows; which of them a shard has
    part_files     the files of one part, and which of its images are there
    job            what all images have in common; which plan they draft by
    drawing        draws the rows that are missing, in slots
    workers        who draws: this process, or others
    failed_file    the rows that have no image
    run            all parts of a job, or of one shard of it

Knows files of prompts and images. Does not know Ray: `cluster` draws the same parts there.
"""
