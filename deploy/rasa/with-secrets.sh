#!/bin/sh
# Rasa reads secrets from its environment; Compose and Kubernetes give them as files, of which each becomes a variable:
# /run/secrets/redis_password is $REDIS_PASSWORD. Then the program is run:  sh with-secrets.sh rasa run ...
set -eu
for file in "${SECRETS_FOLDER:-/run/secrets}"/*; do
  name="$(basename "$file" | tr '[:lower:]-' '[:upper:]_')"
  export "$name=$(cat "$file")"
done
exec "$@"
