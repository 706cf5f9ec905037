#!/bin/sh
# Run an image of the action server as it will be run, and see that it has its actions:  sh smoke.sh IMAGE
set -eu
container="$(docker run --detach --read-only --tmpfs /tmp --cap-drop ALL --network none "$1")"
trap 'docker logs "$container"; docker rm --force "$container" > /dev/null' EXIT
ask="from urllib.request import urlopen; print(urlopen('http://127.0.0.1:5056/actions', timeout=4).read().decode())"
for _ in 1 2 3 4 5 6 7 8 9 10; do
  if docker exec "$container" python -c "$ask" | grep action_order; then exit 0; fi
  sleep 2
done
exit 1
