import { randomBytes } from 'node:crypto';
import { Client, Connection } from '@temporalio/client';

interface TestTemporal {
  address: string;
  namespace: string;
  client: Client;
  connection: Connection;
  /** A task queue nobody else uses: tests share one server and one namespace. */
  taskQueue: string;
  close(): Promise<void>;
}

/** Address of the Temporal server all test files share. */
export function temporalAddress(): string {
  const address = process.env['LONGHAUL_TEST_TEMPORAL_ADDRESS'];
  if (address === undefined) throw new Error('LONGHAUL_TEST_TEMPORAL_ADDRESS is not set: run the test through vitest');
  return address;
}

/** A client of the shared Temporal server, with a task queue of its own. */
export async function testTemporal(): Promise<TestTemporal> {
  const address = temporalAddress();
  const connection = await Connection.connect({ address });
  return {
    address,
    namespace: 'default',
    connection,
    client: new Client({ connection, namespace: 'default' }),
    taskQueue: `test-${randomBytes(8).toString('hex')}`,
    close: () => connection.close(),
  };
}
