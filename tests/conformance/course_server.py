# SPDX-License-Identifier: BSL-1.0
"""course_server.py PORT: the server of chat_server.py with every liberty that the text of the exercise leaves.

It tests the profile 'course': this server must get all its points. There is no senduser; what a receiver sends after
its join is not even read, and the server notices that it has gone only when a text fails to reach it. Lines end in
\\r\\n, an over-long line is cut into lines, any name will do, bad logins may be tried again, and a partial line counts.
"""
import sys
import threading

import chat_server


class Client(chat_server.Client):
    longest_delivery = 100000

    def __init__(self, server, connection):
        super().__init__(server, connection)
        self.has_gone = threading.Event()

    def read_lines(self):
        buffer = b""
        while not self.closing and (data := self.read()):
            buffer += data
            while not self.closing and ((end := buffer.find(b"\n") + 1) or len(buffer) >= 256):
                line, buffer = buffer[:end or 256], buffer[end or 256:]
                self.on_line(self.without_end(line))
                if self.role == "receiver" and self.room:
                    return self.has_gone.wait()
        if buffer:
            self.on_line(buffer)

    def write_lines(self):
        super().write_lines()
        self.has_gone.set()

    def without_end(self, line):
        return line.rstrip(b"\r\n")

    def send(self, line):
        super().send(line + b"\r")

    def is_name(self, text):
        return text != b""

    def refuse(self, why):
        self.reply("err", why)

    def on_message(self, tag, payload):
        if tag == "senduser" or (self.role == "receiver" and tag != "join"):
            return self.unknown(tag)
        super().on_message(tag, payload)


if __name__ == "__main__":
    chat_server.Server(int(sys.argv[1]), Client).serve()
