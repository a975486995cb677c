# The target chatproto::compiled, see chatproto/compiled.hpp. Included by the build and by the installed package: the
# library is compiled in the project that uses it, with that project's compiler and flags, and only if it is used.
if(NOT TARGET chatproto::compiled)
  file(CONFIGURE OUTPUT chatproto_compiled.cpp CONTENT "#include <chatproto/compiled.hpp>\n")
  add_library(chatproto_compiled STATIC EXCLUDE_FROM_ALL ${CMAKE_CURRENT_BINARY_DIR}/chatproto_compiled.cpp)
  add_library(chatproto::compiled ALIAS chatproto_compiled)
  target_link_libraries(chatproto_compiled PUBLIC chatproto::chatproto)
  target_compile_definitions(chatproto_compiled PUBLIC CHATPROTO_COMPILED)
endif()
