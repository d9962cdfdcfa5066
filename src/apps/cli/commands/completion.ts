/** `dmalink completion`: a script by which a shell completes our words. */
import { type Command, command } from "../command.ts";
import { UsageError } from "../exit-errors.ts";
import { print } from "../terminal/print.ts";

/** The shells there is a script for. */
const SHELLS = ["bash", "zsh", "fish"] as const;

export const completion: Command = command({
  name: "completion",
  summary: "a script for bash, zsh or fish, by which the shell completes commands, options and files",
  description:
    "For now: source <(dmalink completion bash). For good: the same line in ~/.bashrc or ~/.zshrc; for fish, " +
    "dmalink completion fish > ~/.config/fish/completions/dmalink.fish.",
  arguments: [{ name: "SHELL", meaning: "bash, zsh or fish", completes: SHELLS }],
  options: {},
  examples: ["source <(dmalink completion bash)", "dmalink completion fish | source"],
  async run({ arguments: [asked], program }) {
    const shell = SHELLS.find((one) => one === asked);
    if (!shell) throw new UsageError(`${asked}: one of ${SHELLS.join(", ")} is needed`);
    print(await (await import("../terminal/completion.ts")).completionScript(shell, program));
    return 0;
  },
});
