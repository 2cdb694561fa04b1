import { harnessList } from '../../contracts/harness-catalogue.ts';
import { endpoint } from '../endpoint.ts';
import { askHarnessReport } from '../harness-report.ts';
import { renderHarnesses } from '../render/harnesses.ts';

export const listHarnesses = endpoint({
  method: 'get',
  path: '/v1/harnesses',
  tag: 'Harnesses',
  summary: 'Loops that drive a model: what is installed, what each can do, and which controls hold',
  description: 'A worker is asked what it has; without one, `installed` and `capabilities` are null.',
  response: harnessList,
  async handle({ services, log }) {
    const report = await askHarnessReport(services.temporal, services.config.taskQueue, log);
    const reason = report === undefined ? 'no worker answered in time' : null;
    return { data: renderHarnesses(report), worker: { answered: report !== undefined, reason } };
  },
});
