"""A store at an address (`s3://bucket/prefix`): its objects, leases, journals and run folders, and the working copy."""
