// Every way in which a test of node:test ends, and a name that is hostile.
import assert from 'node:assert';
import test, { describe, it, beforeEach } from 'node:test';

let sold = 0;
describe('shop', () => {
  beforeEach(() => { sold = 0; });
  it('sells', () => { console.log('hello'); sold += 1; assert.strictEqual(sold, 1); });
  it('fails', () => { assert.deepStrictEqual({ stock: 1 }, { stock: 2 }); });
  it.skip('skips', () => {});
  it.todo('later');
  it("it's $(touch owned) \"q\" (a|b) `x` ; rm -rf é", async () => { await new Promise((r) => setTimeout(r, 20)); });
  describe('nested::deep', () => {
    it('twice', () => {});
    it('twice', () => { throw new Error('the second'); });
  });
});
test('loose', async (t) => { await t.test('inner', () => {}); });
test('with callback', (t, done) => setTimeout(done, 5));
