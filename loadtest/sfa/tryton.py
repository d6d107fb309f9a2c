"""Tryton over its own JSON-RPC, with nothing but the standard library."""

import base64
import datetime
import decimal
import json
import urllib.error
import urllib.request


class Refused(Exception):
    """Tryton says why."""


class Tryton:
    """One user of one database. Logs in when it must: sessions end."""

    def __init__(self, url, database, user, password):
        self.url, self.user, self.password = f"{url.rstrip('/')}/{database}/rpc/", user, password
        self.session, self.preferences = None, {}

    def call(self, model, method, *arguments, **context):
        """Calls a method of a model; `context` is Tryton's, beside the user's own."""
        for _ in range(2):
            if self.session is None:
                self.log_in()
            try:
                return self.post(f"model.{model}.{method}",
                                 [*arguments, {**self.preferences, **context}])
            except urllib.error.HTTPError as refusal:
                if refusal.code != 401:
                    raise
                self.session = None
        raise Refused("the session ends at once")

    def find(self, model, domain, *fields):
        """What matches, oldest first; a field of another record is said as in `party.name`."""
        return self.call(model, "search_read", domain, 0, None, [["id", "ASC"]], list(fields))

    def log_in(self):
        number, key, *_ = self.post(
            "common.db.login", [self.user, {"password": self.password}, "en"])
        self.session = base64.b64encode(f"{self.user}:{number}:{key}".encode()).decode()
        self.preferences = self.post("model.res.user.get_preferences", [True, {}])

    def post(self, method, parameters):
        headers = {"content-type": "application/json"}
        if self.session:
            headers["authorization"] = f"Session {self.session}"
        body = json.dumps({"id": 1, "method": method, "params": parameters}, default=to_json)
        request = urllib.request.Request(self.url, body.encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            said = json.loads(answer.read(), object_hook=from_json)
        if "error" in said:
            raise Refused(said["error"])
        return said["result"]


PARTS = ("year", "month", "day", "hour", "minute", "second", "microsecond")


def to_json(value):
    if isinstance(value, decimal.Decimal):
        return {"__class__": "Decimal", "decimal": str(value)}
    if isinstance(value, datetime.datetime):
        return {"__class__": "datetime", **{part: getattr(value, part) for part in PARTS}}
    raise TypeError(f"Tryton is never told a {type(value).__name__}")


def from_json(value):
    kind = value.get("__class__")
    if kind == "Decimal":
        return decimal.Decimal(value["decimal"])
    if kind == "datetime":
        return datetime.datetime(*(value[part] for part in PARTS))
    if kind == "date":
        return datetime.date(*(value[part] for part in PARTS[:3]))
    return value
