/**
 * What the machine must have for a command, and has not: the command ends with exit code 3.
 *
 * The message says what is missing and the command that cures it; nothing has been changed on the machine by then.
 */
export class EnvironmentError extends Error {
  override readonly name = "EnvironmentError";
}
