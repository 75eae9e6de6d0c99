"""A mail server (aiosmtpd) on loopback for the tests of logins.

    python3 mail.py [CERTIFICATE KEY [--tls]]

The first line on stdout is its port; then each mail is one line of JSON: envelope, text, and how
it came. With a certificate it wants STARTTLS (or, with --tls, TLS from the first byte) and the
name `postern` with the password `correct horse`. It ends when stdin does.
"""

import json
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword


class Print:
    async def handle_DATA(self, server, session, envelope):
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "data": envelope.content.decode(),
            "hello": session.host_name,
            "tls": session.ssl is not None or direct,
            "name": session.auth_data.decode() if session.auth_data else None,
        }
        print(json.dumps(mail), flush=True)
        return "250 taken"


def known(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and data == LoginPassword(b"postern", b"correct horse")
    return AuthResult(success=good, handled=False, auth_data=data.login if good else None)


arguments = sys.argv[1:]
direct = "--tls" in arguments
files = [argument for argument in arguments if argument != "--tls"]
options = {}
if files:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
    options = {"authenticator": known, "auth_required": True}
    if direct:
        options |= {"ssl_context": context, "auth_require_tls": False}
    else:
        options |= {"tls_context": context, "require_starttls": True}


class AnyPort(Controller):
    """The controller connects to itself once to see that it is up, and must know the port."""

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


controller = AnyPort(Print(), hostname="127.0.0.1", port=0, **options)
controller.start()
print(controller.port, flush=True)
sys.stdin.read()
controller.stop()
