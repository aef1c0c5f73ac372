-- wrk: POST 16 KiB
wrk.method = "POST"
wrk.body = string.rep("b", 16384)
wrk.headers["Content-Type"] = "application/octet-stream"
