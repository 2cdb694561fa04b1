export { Journal } from './journal.ts';
export type { JournalTransport } from './journal.ts';
