/**
 * A shell script that records, for machines without Node.
 *
 * Idea: the same steps as `dmalink record`, in POSIX sh: trace-cmd where it is installed, else an instance of tracefs
 * whose text is kept (a shell cannot build a binary file well). Whatever happens, a trap puts the machine back.
 */
import { definitionsOf, PROBE_GROUP, PROBES } from "./probes.ts";

interface ScriptPlan {
  readonly file: string;
  readonly seconds: number | undefined;
  readonly command: readonly string[];
  readonly devices: readonly string[];
  /** Whose events are switched on, where the kernel has them. */
  readonly systems: readonly string[];
  readonly probes: boolean;
  readonly bufferKiB: number;
  readonly clock: string;
  /** Each event with the stack that led to it. */
  readonly stacks: boolean;
}

/** A word that the shell takes as it is. */
const quoted = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`;

export function recordScript(plan: ScriptPlan, filterOf: (system: string) => string): string {
  const { file, seconds, command, probes, bufferKiB, clock } = plan;
  const load = command.length > 0 ? command.map(quoted).join(" ") : seconds !== undefined ? `sleep ${seconds}` : "";
  const systems = [...plan.systems, ...(probes ? [PROBE_GROUP] : [])];
  const filters = systems.filter((system) => filterOf(system) !== "");
  const probeLines = PROBES.flatMap((probe) => {
    const [first, second] = definitionsOf(probe).map((definition) => quoted(definition));
    return [
      `[ -e events/${PROBE_GROUP}/${probe.name} ] || { echo ${first} >> dynamic_events; } 2>/dev/null ||`,
      `  { echo ${second} >> dynamic_events; } || fail "this kernel refuses the probe ${probe.name}"`,
    ];
  });
  const lines = [
    "#!/bin/sh",
    "# Records DMA mappings for dmalink; run it as root. The file it writes is read by: dmalink check, stats, compare",
    `out=${quoted(file)}`,
    "case $out in /*) ;; *) out=$PWD/$out ;; esac",
    'fail() { echo "record: $*" >&2; exit 3; }',
    "T=/sys/kernel/tracing; [ -d $T/events ] || T=/sys/kernel/debug/tracing",
    '[ -d $T/events ] || fail "tracefs is not there; as root: mount -t tracefs nodev /sys/kernel/tracing"',
    '[ -w $T/tracing_on ] || fail "permission denied; run it as root"',
    '[ -d $T/events/dma ] || [ -d $T/events/iommu ] || fail "this kernel has neither dma nor iommu events (dma: Linux 6.12 or newer)"',
    "here=$PWD; cd $T || exit 3",
    "I=instances/dmalink.$$; reader=",
    "restore() {",
    "  trap - EXIT INT TERM HUP",
    '  [ -n "$reader" ] && kill $reader 2>/dev/null && wait $reader 2>/dev/null',
    "  if [ -d $T/$I ]; then echo 0 > $T/$I/tracing_on; rmdir $T/$I; fi",
    ...(probes
      ? PROBES.map(
          ({ name }) =>
            `  [ -e $T/events/${PROBE_GROUP}/${name} ] && echo '-:${PROBE_GROUP}/${name}' >> $T/dynamic_events 2>/dev/null`,
        )
      : []),
    "  return 0",
    "}",
    "trap restore EXIT",
    "trap : INT TERM HUP # the recording ends, and is kept",
    ...(probes
      ? [
          `grep -q ' dma_iova_try_alloc$' /proc/kallsyms || fail "this kernel has no two-step functions (Linux 6.16 or newer)"`,
          ...probeLines,
        ]
      : []),
    `S=; for s in ${systems.join(" ")}; do [ -d events/$s ] && S="$S $s"; done`,
    "filter() { case $1 in",
    ...filters.map((system) => `  ${system}) echo ${quoted(filterOf(system))} ;;`),
    "  esac; }",
    `load() { cd "$here" && ${load === "" ? "while :; do sleep 3600 || break; done" : load}; }`,
    "if command -v trace-cmd > /dev/null; then",
    `  set -- record -q --no-filter -o "$out" -B dmalink.$$ -b ${bufferKiB} -C ${clock}${plan.stacks ? " -T" : ""}`,
    '  for s in $S; do set -- "$@" -e $s; f=$(filter $s); [ -n "$f" ] && set -- "$@" -f "$f"; done',
    `  (cd "$here" && exec trace-cmd "$@" ${load}) || fail "trace-cmd failed"`,
    "else",
    "  mkdir $I || fail 'cannot make an instance of tracefs'",
    `  echo 0 > $I/tracing_on; echo ${bufferKiB} > $I/buffer_size_kb`,
    `  grep -q ${clock} $I/trace_clock && echo ${clock} > $I/trace_clock`,
    ...(plan.stacks ? ["  echo stacktrace > $I/trace_options"] : []),
    '  for s in $S; do f=$(filter $s); [ -n "$f" ] && echo "$f" > $I/events/$s/filter; echo 1 > $I/events/$s/enable; done',
    '  cat $I/trace_pipe > "$out" & reader=$!',
    "  echo 1 > $I/tracing_on",
    "  (load)",
    "  echo 0 > $I/tracing_on; sleep 1",
    "fi",
    'echo "record: $out written; read it with: dmalink check $out" >&2',
    "",
  ];
  return lines.join("\n");
}
