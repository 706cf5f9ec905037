#!/bin/sh
# Let the cluster have an image of the action server, and the one before again if it does not get well with it:
#   sh rollout.sh registry.example.org/tea-room/actions@sha256:...
set -eu
deployment=deployment/actions
kubectl --namespace tea-room set image "$deployment" "actions=$1"
if kubectl --namespace tea-room rollout status "$deployment" --timeout=180s; then exit 0; fi
kubectl --namespace tea-room rollout undo "$deployment"
kubectl --namespace tea-room rollout status "$deployment" --timeout=180s
exit 1
