"""Make the secrets of the stack, in the folder ``secrets`` beside this file or the one that is named.

A secret that is there stays as it is: to change one, delete its file and run this again. What is made of secrets (files
of hashes, which is all that servers get to know) is made anew each time. A certificate of your own goes to
``tls_certificate`` and ``tls_key`` before; otherwise one is made that no browser trusts, for ``localhost`` or the names
that are given.
"""

import argparse
import base64
import hashlib
import json
import os
import secrets
import subprocess
from pathlib import Path
from typing import Dict, List

HERE = Path(__file__).resolve().parent

PASSWORDS = {
    "redis_password": "Rasa's user of Redis",
    "redis_admin_password": "who looks after Redis",
    "redis_replica_password": "replicas, to their masters; of a Redis Cluster",
    "rabbitmq_password": "Rasa's user of RabbitMQ, which publishes",
    "events_rabbitmq_password": "the consumer's, which takes from the queue",
    "events_postgresql_password": "the consumer's user of PostgreSQL, which adds rows",
    "postgresql_password": "who looks after PostgreSQL",
    "actions_password": "Rasa, to the action server",
}

EXCHANGE, QUEUE = "rasa-exchange", "rasa_core_events"


def redis_users(template: Path, passwords: Dict[str, str]) -> str:
    """Return an ACL file: the template, with digests in the place of passwords."""
    text = template.read_text()
    for name, password in passwords.items():
        text = text.replace(f"#{{{name}}}", "#" + hashlib.sha256(password.encode()).hexdigest())
    return text


def rabbitmq_definitions(passwords: Dict[str, str]) -> str:
    """Return the users of RabbitMQ and their rights. Source: "Computing Password Hash" in RabbitMQ's documentation."""

    def user(name: str, password: str) -> Dict[str, object]:
        salt = secrets.token_bytes(4)
        digest = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
        algorithm = "rabbit_password_hashing_sha256"
        return {"name": name, "password_hash": digest, "hashing_algorithm": algorithm, "tags": ""}

    def may(name: str, configure: str, write: str, read: str) -> Dict[str, str]:
        return {"user": name, "vhost": "/", "configure": configure, "write": write, "read": read}

    queue, both = f"^{QUEUE}$", f"^({EXCHANGE}|{QUEUE})$"
    users = [user("rasa", passwords["rabbitmq_password"]), user("events", passwords["events_rabbitmq_password"])]
    rights = [may("rasa", both, both, f"^{EXCHANGE}$"), may("events", queue, "^$", queue)]
    return json.dumps({"vhosts": [{"name": "/"}], "users": users, "permissions": rights}, indent=2)


def htpasswd(user: str, password: str) -> str:
    """Return nginx's file of a user. Source: {SSHA} in the documentation of ``auth_basic_user_file``, RFC 2307."""
    salt = secrets.token_bytes(8)
    digest = base64.b64encode(hashlib.sha1(password.encode() + salt).digest() + salt).decode()
    return f"{user}:{{SSHA}}{digest}\n"


def make_certificate(folder: Path, names: List[str]) -> None:
    """Make a key, and a certificate that is signed with it. Needs the program ``openssl``."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "365", "-subj", f"/CN={names[0]}", "-addext"]
    command += ["subjectAltName=" + ",".join(f"{'IP' if name[-1].isdigit() else 'DNS'}:{name}" for name in names)]
    files = ["-keyout", str(folder / "tls_key"), "-out", str(folder / "tls_certificate")]
    subprocess.run([*command, *files], stderr=subprocess.DEVNULL, check=True)


def make(folder: Path, names: List[str]) -> None:
    """Make what is missing in a folder, which only its owner can enter.

    All can read the files: in a container each is mounted alone, and read by the user of that container's program.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name in PASSWORDS:
        if not (folder / name).exists():
            (folder / name).write_text(secrets.token_hex(32))
    passwords = {name: (folder / name).read_text().strip() for name in PASSWORDS}
    (folder / "redis_users").write_text(redis_users(HERE / "compose" / "redis_users.acl", passwords))
    (folder / "redis_cluster_users").write_text(redis_users(HERE / "kubernetes" / "redis_users.acl", passwords))
    (folder / "rabbitmq_definitions").write_text(rabbitmq_definitions(passwords))
    (folder / "actions_htpasswd").write_text(htpasswd("rasa", passwords["actions_password"]))
    if not (folder / "tls_key").exists():
        make_certificate(folder, names)
    for file in folder.iterdir():
        file.chmod(0o644)


def main() -> None:
    """Make them, and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=HERE / "secrets")
    parser.add_argument("--name", action="append", help="host name for the certificate (localhost)")
    given = parser.parse_args()
    make(given.folder, given.name or ["localhost", "127.0.0.1"])
    print(f"{os.path.relpath(given.folder)}: {', '.join(sorted(file.name for file in given.folder.iterdir()))}")


if __name__ == "__main__":
    main()
