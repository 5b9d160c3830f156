from sealwire.drive.aio.line import PlainLine, plain_serve_ready

Line = PlainLine
serve_ready = plain_serve_ready
