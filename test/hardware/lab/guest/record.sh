#!/bin/sh
# In the guest: records in every way that dmalink has, under a load, and says after each what it left on the machine.
T=/sys/kernel/tracing; O=/host/out; mkdir -p $O; cd $O
state() { echo "left: instances=[$(ls $T/instances)] probes=$(wc -l < $T/dynamic_events) parts=[$(ls $O | grep '\.part')] enabled=[$(cat $T/set_event)]"; }
D="node /host/dist/apps/cli/main.js"
try() { echo "== $1"; shift; "$@"; echo "exit: $?"; state; }
# A machine under load may take long to start a program: what is interrupted is a recording that runs.
begun() { i=0; while [ -z "$(ls $T/instances)" ] && [ $i -lt 300 ]; do sleep 0.1; i=$((i+1)); done; sleep 2; }
interrupted() { "$@" & p=$!; begun; kill -INT $p; wait $p; }
killed() { "$@" & p=$!; begun; kill -9 $p; wait $p; return 0; }
load() { fio --name=w --filename=/dev/nvme0n1 --direct=1 --thread --randseed=7 --allrandrepeat=1 --size=1g --rw=randrw --bsrange=4k-128k --iodepth=4 --ioengine=libaio --output=/tmp/fio.out --eta=never "$@"; }
mv /usr/bin/trace-cmd /tmp/trace-cmd
try tracefs-command $D record --probes -o command.dat -- fio --name=w --filename=/dev/nvme0n1 --direct=1 --thread --randseed=7 --size=1g --rw=randrw --bsrange=4k-128k --iodepth=4 --ioengine=libaio --number_ios=200 --output=/tmp/fio.out
echo "== check"; $D check command.dat; echo "exit: $?"
load --time_based --runtime=600 --rate_iops=200 & L=$!
try tracefs-interrupted interrupted $D record -o interrupted.dat
try tracefs-killed killed $D record --probes -o killed.dat
rm -f $O/killed.dat.*.part* # what SIGKILL leaves
try tracefs-after-kill $D record --probes -o timed.dat --for 500ms
try not-root node -e 'process.setgid(1000); process.setuid(1000); process.argv.splice(1, 0, "x"); import("/host/dist/apps/cli/main.js")' record -o /tmp/no.dat --for 1s
$D record --print-script --probes --for 1s -o script.txt > /tmp/script.sh
try script sh /tmp/script.sh
mv /tmp/trace-cmd /usr/bin/trace-cmd
try trace-cmd $D record --probes -o trace-cmd.dat --for 500ms
try trace-cmd-interrupted interrupted $D record -o trace-cmd-interrupted.dat
$D record --print-script --probes --for 1s -o script.dat > /tmp/script.sh
try script-trace-cmd sh /tmp/script.sh
trace-cmd report command.dat > command.report.txt 2> command.report.err
kill $L; wait
