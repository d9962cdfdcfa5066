#!/bin/sh
# In the guest: a device faults while dmalink records, in each way that it records; the kernel's log besides.
mkdir -p /host/out; cd /host/out
D="node /host/dist/apps/cli/main.js"
rm -f /host/faults.jsonl
mv /usr/bin/trace-cmd /tmp/trace-cmd
$D record -o faults.dat -- node /host/faults.mjs /host/faults.jsonl; echo "exit: $?"
dmesg > faults.dmesg.txt
mv /tmp/trace-cmd /usr/bin/trace-cmd
$D check faults.dat; echo "check: $?"
$D check faults.dmesg.txt; echo "check log: $?"
