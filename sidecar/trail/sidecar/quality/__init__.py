"""Whether predictions can be trusted, judged on the requests that ended.
The loop hands them in and follows what is found.
"""
