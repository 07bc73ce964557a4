"""The service that `thumbnail` is posted to: `python -m examples.asyncjobs_style.service`."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Thumbnails(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        task = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = task["payload"]["path"]
        self.send_response(200)
        if not path.endswith(".jpg"):
            self.send_header("Asynctaskd-Terminate", f"{path} is no picture")  # no retry would help
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"small": path.replace(".jpg", ".small.jpg")}).encode())


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 8001), Thumbnails).serve_forever()
