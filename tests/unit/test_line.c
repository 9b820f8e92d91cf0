#include <check.h>
#include <stdlib.h>
#include "gate/line.h"
#include "tests/support/suite.h"

enum { MANY = 3000 };
static struct line line;
static struct line_node node[MANY];

static void setup(void)
{
	line = (struct line){ .root = NULL };
}

static struct line_node *stands(int i, uint64_t key)
{
	line_add(&line, &node[i], key);
	return &node[i];
}

START_TEST(an_empty_line_has_no_first)
{
	ck_assert_ptr_null(line_first(&line));
	ck_assert_uint_eq(line_count(&line), 0);
}
END_TEST

START_TEST(who_comes_first_stands_first_and_equal_keys_keep_their_order)
{
	stands(0, 7);
	stands(1, 5);
	stands(2, 7);
	stands(3, 5);
	ck_assert_ptr_eq(line_first(&line), &node[1]);
	ck_assert_uint_eq(line_position(&node[1]), 1);
	ck_assert_uint_eq(line_position(&node[3]), 2);
	ck_assert_uint_eq(line_position(&node[0]), 3);
	ck_assert_uint_eq(line_position(&node[2]), 4);
}
END_TEST

START_TEST(who_leaves_moves_those_behind_up)
{
	for (int i = 0; i < 10; i++)
		stands(i, (uint64_t)i);
	line_remove(&line, &node[0]);
	line_remove(&line, &node[4]);
	ck_assert_uint_eq(line_position(&node[3]), 3);
	ck_assert_uint_eq(line_position(&node[5]), 4);
	ck_assert_uint_eq(line_position(&node[9]), 8);
	ck_assert_uint_eq(line_count(&line), 8);
	ck_assert(line_check(&line));
}
END_TEST

static unsigned position_by_hand(const struct line_node *n, const bool *in)
{
	unsigned position = 1;

	for (int i = 0; i < MANY; i++)
		position += in[i] && (node[i].key < n->key || (node[i].key == n->key && node[i].seq < n->seq));
	return position;
}

START_TEST(positions_are_right_whatever_the_order_of_coming_and_leaving)
{
	static bool in[MANY];
	srand(4711);
	for (int turn = 0; turn < 20000; turn++) {
		int i = rand() % MANY;
		if (in[i])
			line_remove(&line, &node[i]);
		else
			stands(i, (uint64_t)(rand() % 500));
		in[i] = !in[i];
		if (turn % 500 == 0) {
			ck_assert(line_check(&line));
			for (int j = 0; j < MANY; j += 97)
				if (in[j])
					ck_assert_uint_eq(line_position(&node[j]), position_by_hand(&node[j], in));
		}
	}
	for (int i = 0; i < MANY; i++)
		if (in[i])
			line_remove(&line, &node[i]);
	ck_assert_uint_eq(line_count(&line), 0);
}
END_TEST

static unsigned depth(const struct line_node *n)
{
	unsigned left, right;

	if (!n)
		return 0;
	left = depth(n->left);
	right = depth(n->right);
	return 1 + (left > right ? left : right);
}

START_TEST(a_line_in_order_of_coming_stays_flat)
{
	for (int i = 0; i < MANY; i++)
		stands(i, (uint64_t)i);
	ck_assert_uint_lt(depth(line.root), 45); /* 12 levels would be the least */
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("line");

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_test(t, an_empty_line_has_no_first);
	tcase_add_test(t, who_comes_first_stands_first_and_equal_keys_keep_their_order);
	tcase_add_test(t, who_leaves_moves_those_behind_up);
	tcase_add_test(t, positions_are_right_whatever_the_order_of_coming_and_leaving);
	tcase_add_test(t, a_line_in_order_of_coming_stays_flat);
	return suite_run("line", t);
}
