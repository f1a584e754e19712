"""The pictures of the report, one file each: from the run to panels. What a run lacks, the caption says."""
