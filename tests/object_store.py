"""An object store for tests: the part of S3's protocol that pyarrow speaks, on this machine, in memory."""

import hashlib
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Handler(BaseHTTPRequestHandler):
    """Objects by `bucket/key`; `server.log` names what was written and deleted, in order."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def asked(self):
        parts = urlsplit(self.path)
        return unquote(parts.path).strip("/"), parse_qs(parts.query, keep_blank_values=True)

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return data
        whole = b""  # chunks again, inside: size, data, and after the last a checksum
        while length := int(data.partition(b"\r\n")[0].split(b";")[0], 16):
            data = data.partition(b"\r\n")[2]
            whole, data = whole + data[:length], data[length + 2 :]
        return whole

    def do_PUT(self):
        name, query = self.asked()
        data, objects = self.body(), self.server.objects
        if self.server.full:
            self.reply(403, b"<Error><Code>AccessDenied</Code><Message>no more room</Message></Error>")
        elif "partNumber" in query:
            self.server.parts.setdefault(query["uploadId"][0], {})[int(query["partNumber"][0])] = data
            self.reply(200, ETag=f'"{hashlib.md5(data).hexdigest()}"')
        else:
            objects[name] = data
            self.server.log.append(("put", name))
            self.reply(200, ETag=f'"{hashlib.md5(data).hexdigest()}"')

    def do_POST(self):
        name, query = self.asked()
        self.body()
        if "uploads" in query:
            number = str(len(self.server.parts))
            self.server.parts[number] = {}
            told = f"<UploadId>{number}</UploadId>"
            self.reply(200, f"<InitiateMultipartUploadResult>{told}</InitiateMultipartUploadResult>".encode())
        else:
            parts = self.server.parts.pop(query["uploadId"][0])
            self.server.objects[name] = b"".join(parts[number] for number in sorted(parts))
            self.server.log.append(("put", name))
            self.reply(200, b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")

    def do_GET(self):
        name, query = self.asked()
        if "list-type" in query:
            self.listing(name, query)
        elif name not in self.server.objects:
            self.reply(404, b"<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>")
        else:
            data = self.server.objects[name]
            ranged = self.headers.get("Range")
            if ranged:
                first, _, last = ranged.removeprefix("bytes=").partition("-")
                data = data[int(first) : int(last) + 1]
            self.reply(206 if ranged else 200, data, ETag='"x"', Last_Modified="Sat, 21 Nov 2026 10:00:00 GMT")

    def do_HEAD(self):
        name, _ = self.asked()
        buckets = {one.partition("/")[0] for one in self.server.objects} | {"bucket"}
        found = name in self.server.objects or name in buckets
        data = self.server.objects.get(name, b"")
        self.reply(200 if found else 404, data, Last_Modified="Sat, 21 Nov 2026 10:00:00 GMT")

    def do_DELETE(self):
        name, _ = self.asked()
        self.server.objects.pop(name, None)
        self.server.log.append(("delete", name))
        self.reply(204)

    def listing(self, bucket, query):
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        contents, common = [], set()
        for name in sorted(self.server.objects):
            key = name.removeprefix(f"{bucket}/")
            if not name.startswith(f"{bucket}/{prefix}"):
                continue
            inner = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            if inner[1]:
                common.add(prefix + inner[0] + delimiter)
            else:
                size = len(self.server.objects[name])
                when = "<LastModified>2026-11-21T10:00:00.000Z</LastModified>"
                contents.append(f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size>{when}</Contents>")
        folders = [f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in sorted(common)]
        inside = "".join([*contents, *folders])
        count = f"<IsTruncated>false</IsTruncated><KeyCount>{len(contents) + len(folders)}</KeyCount>"
        self.reply(200, f"<ListBucketResult>{count}{inside}</ListBucketResult>".encode())


@contextmanager
def object_store():
    """Yield a server; `server.url` is that of a folder in its bucket."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.objects, server.parts, server.log, server.full = {}, {}, [], False
    server.url = f"s3://bucket/runs?endpoint_override=127.0.0.1:{server.server_port}&scheme=http&region=eu-north-1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
