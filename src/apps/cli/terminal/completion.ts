/**
 * Completion in a shell, made of the commands' own values: `source <(dmalink completion bash)`.
 *
 * Idea: one list of what may follow where, and a script for each shell that holds it; the shell asks nothing of us, so that
 * a key press costs no start of Node. Specified by: the manuals of bash (Programmable Completion), zsh (zshcompsys), fish.
 */
import { type Command, type Completion, flagOf, type Program } from "../command.ts";
import { meaningOf } from "./help.ts";

/** The shells there is a script for. */
export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

/** What may follow a word: words of a list, or a path. */
type Follows = "file" | "folder" | readonly string[];

interface CompletedOption {
  /** "--output", and "-o" if it has one. */
  readonly flags: readonly string[];
  readonly meaning: string;
  /** What its value may be; `undefined`: it is a switch. */
  readonly value: Follows | undefined;
}

interface CompletedCommand {
  readonly name: string;
  readonly summary: string;
  readonly options: readonly CompletedOption[];
  /** What its arguments may be; `undefined`: it has none. */
  readonly words: Follows | undefined;
}

/** The script for `shell`. */
export async function completionScript(shell: Shell, program: Program): Promise<string> {
  const commands = await Promise.all(program.commands.map(completed));
  return { bash: bashScript, zsh: zshScript, fish: fishScript }[shell](commands);
}

async function completed({ name, summary, arguments: words, options }: Command): Promise<CompletedCommand> {
  const of = Object.entries(options).map(
    async ([key, option]): Promise<CompletedOption> => ({
      flags: [flagOf(key), ...(option.short === undefined ? [] : [`-${option.short}`])],
      meaning: meaningOf(option),
      value: option.value === undefined ? undefined : await follows(option.completes),
    }),
  );
  const help: CompletedOption = { flags: ["--help", "-h"], meaning: "what it does", value: undefined };
  const [first] = words;
  return {
    name,
    summary,
    options: [...(await Promise.all(of)), help],
    words: first && (await follows(first.completes)),
  };
}

const follows = async (completion: Completion | undefined): Promise<Follows> =>
  typeof completion === "function" ? completion() : (completion ?? []);

/** A word that a POSIX shell takes as it is. */
const quoted = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`;

function bashScript(commands: readonly CompletedCommand[]): string {
  const reply = (what: Follows): string =>
    what === "file"
      ? 'COMPREPLY=($(compgen -f -- "$cur"))'
      : what === "folder"
        ? 'COMPREPLY=($(compgen -d -- "$cur"))'
        : `COMPREPLY=($(compgen -W ${quoted(what.join(" "))} -- "$cur"))`;
  const names = commands.map(({ name }) => name);
  return `# Completion of dmalink for bash: source <(dmalink completion bash)
_dmalink() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} command= i
  local IFS=$' \\t\\n'
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case \${COMP_WORDS[i]} in ${names.join("|")}) command=\${COMP_WORDS[i]}; break ;; esac
  done
  [ "$cur" = "=" ] && cur=
  [ "$prev" = "=" ] && prev=\${COMP_WORDS[COMP_CWORD-2]}
  case $command in
    '') ${reply([...names, "--help", "--version"])} ;;
${commands
  .map(
    ({ name, options, words }) => `    ${name})
      case $prev in
${options
  .filter(({ value }) => value !== undefined)
  .map(({ flags, value }) => `        ${flags.join("|")}) ${reply(value!)}; return ;;\n`)
  .join("")}      esac
      case $cur in
        -*) ${reply(options.flatMap(({ flags }) => flags))} ;;
        *) ${words === undefined ? ":" : reply(words)} ;;
      esac ;;`,
  )
  .join("\n")}
  esac
}
complete -o filenames -F _dmalink dmalink
`;
}

function zshScript(commands: readonly CompletedCommand[]): string {
  /** Text inside an _arguments specification, where brackets and colons have a meaning. */
  const plain = (text: string): string => text.replace(/[[\]:\\]/g, (sign) => `\\${sign}`);
  const action = (what: Follows): string =>
    what === "file" ? "_files" : what === "folder" ? "_files -/" : what.length === 0 ? " " : `(${what.join(" ")})`;
  const spec = ({ flags, meaning, value }: CompletedOption): string[] =>
    flags.map((flag) => quoted(`*${flag}[${plain(meaning)}]${value === undefined ? "" : `:value:${action(value)}`}`));
  return `#compdef dmalink
# Completion of dmalink for zsh: source <(dmalink completion zsh), or as _dmalink in a folder of $fpath
_dmalink() {
  local state
  local -a commands=(
${commands.map(({ name, summary }) => `    ${quoted(`${name}:${plain(summary)}`)}`).join("\n")}
  )
  _arguments -C '(-h --help)'{-h,--help}'[what there is]' '(-v --version)'{-v,--version}'[the version]' '1:command:->command' '*::word:->word'
  case $state in
    command) _describe command commands ;;
    word)
      case $words[1] in
${commands
  .map(
    ({ name, options, words }) =>
      `        ${name}) _arguments ${[...options.flatMap(spec), ...(words === undefined ? [] : [quoted(`*:word:${action(words)}`)])].join(" ")} ;;`,
  )
  .join("\n")}
      esac ;;
  esac
}
if [ "$funcstack[1]" = _dmalink ]; then _dmalink "$@"; else compdef _dmalink dmalink; fi
`;
}

function fishScript(commands: readonly CompletedCommand[]): string {
  const word = (text: string): string => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  const names = commands.map(({ name }) => name).join(" ");
  const what = (value: Follows): string =>
    value === "file"
      ? "-F"
      : value === "folder"
        ? `-f -a '(__fish_complete_directories)'`
        : `-f -a ${word(value.join(" "))}`;
  const lines = commands.flatMap(({ name, summary, options, words }) => {
    const here = `-n '__fish_seen_subcommand_from ${name}'`;
    return [
      `complete -c dmalink -n 'not __fish_seen_subcommand_from ${names}' -f -a ${name} -d ${word(summary)}`,
      ...(words === undefined ? [] : [`complete -c dmalink ${here} ${what(words)}`]),
      ...options.map(({ flags: [long, short], meaning, value }) =>
        [
          `complete -c dmalink ${here} -l ${long!.slice(2)}`,
          ...(short === undefined ? [] : [`-s ${short.slice(1)}`]),
          ...(value === undefined ? [] : [`-r ${what(value)}`]),
          `-d ${word(meaning)}`,
        ].join(" "),
      ),
    ];
  });
  return `# Completion of dmalink for fish: dmalink completion fish | source\ncomplete -c dmalink -f\n${lines.join("\n")}\n`;
}
