cmake_minimum_required(VERSION 3.22)
# cmake -D PAGE=... -D PROGRAM=... -P output.cmake: checks that a block of PAGE is what PROGRAM prints before it fails.
file(READ ${PAGE} page)
execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE output RESULT_VARIABLE result)
string(FIND "${page}" "```\n${output}```\n" at)
if(at EQUAL -1 OR NOT result EQUAL 1)
  message(FATAL_ERROR "${PAGE} has no block that is what ${PROGRAM} prints (it ended with ${result}):\n${output}")
endif()
