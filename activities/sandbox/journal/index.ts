export { JournalCommands } from './commands.ts';
export { Journal, stateOf } from './journal.ts';
export type { JournalTransport } from './journal.ts';
