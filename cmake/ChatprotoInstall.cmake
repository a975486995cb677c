# Installs the headers, a CMake package, a pkg-config file and the license, all of which can be moved. The programs are
# separate components, see examples/CMakeLists.txt: `programs`, or `tools` with the names and manual pages of the
# packages.
include(CMakePackageConfigHelpers)
set(CMAKE_INSTALL_DEFAULT_COMPONENT_NAME dev)

set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/chatproto)
set(pkgconfig_dir ${CMAKE_INSTALL_DATADIR}/pkgconfig)

install(DIRECTORY include/chatproto DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN *.hpp)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

install(TARGETS chatproto chatproto_testing EXPORT chatproto-targets)
install(EXPORT chatproto-targets NAMESPACE chatproto:: DESTINATION ${package_dir})
configure_package_config_file(cmake/chatproto-config.cmake.in chatproto-config.cmake
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
set(compatibility SameMajorVersion)
if(PROJECT_VERSION_MAJOR EQUAL 0)
  set(compatibility SameMinorVersion)
endif()
write_basic_package_version_file(chatproto-config-version.cmake COMPATIBILITY ${compatibility} ARCH_INDEPENDENT)
install(FILES
  ${CMAKE_CURRENT_BINARY_DIR}/chatproto-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/chatproto-config-version.cmake
  cmake/ChatprotoAsio.cmake
  cmake/ChatprotoCompiled.cmake
  cmake/ChatprotoParts.cmake
  DESTINATION ${package_dir})

# The .pc file derives the prefix from its own location, unless the folders were given as absolute paths.
set(pc_prefix ${CMAKE_INSTALL_PREFIX})
if(NOT IS_ABSOLUTE "${pkgconfig_dir}")
  file(RELATIVE_PATH pc_prefix "/${pkgconfig_dir}" /)
  string(REGEX REPLACE "/$" "" pc_prefix "\${pcfiledir}/${pc_prefix}")
endif()
set(pc_includedir "\${prefix}")
cmake_path(APPEND pc_includedir ${CMAKE_INSTALL_INCLUDEDIR})
set(pc_windows_cflags "")
set(pc_windows_libs "")
if(WIN32)
  set(pc_windows_cflags " -D_WIN32_WINNT=0x0A00")
  set(pc_windows_libs " -lws2_32 -lmswsock")
endif()
configure_file(cmake/chatproto.pc.in chatproto.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/chatproto.pc DESTINATION ${pkgconfig_dir})
